"""The steps of the tour, one module a service; `impervious.cli.demo.tour` lists them."""
