"""One module a verb, imported when it is called; impervious.cli.registry lists them."""
