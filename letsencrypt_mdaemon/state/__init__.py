"""The memory between runs: values, and the files that hold them."""
