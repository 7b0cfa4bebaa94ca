"""Many servers: hosts in network namespaces, reached by SSH, and one CA with limits."""
