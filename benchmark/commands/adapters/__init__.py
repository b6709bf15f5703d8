"""Commands for authors of adapters: a file to start from, the contract suite, submissions."""
