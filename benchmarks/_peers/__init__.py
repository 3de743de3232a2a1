"""The peers: the same run by each, the processes that measure or train one, and how their returns are compared."""
