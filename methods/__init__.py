"""Attribution methods: the adapter contract, the registry, one file per method, shared engines."""
