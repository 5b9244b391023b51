"""A simulated Lightning network, for tests, demonstrations and writing applications without bitcoind."""
