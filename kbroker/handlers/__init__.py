"""One module per API key, named ``api_<key>_<name>``; the listing is the coverage table."""
