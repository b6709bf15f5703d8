"""What people get of an answer: a folder of files, a page among them."""
