"""The peers of the throughput benchmark: the same run by each, and the process that measures one."""
