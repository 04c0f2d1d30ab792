"""The training service: dataset snapshots, and runs that graft pretrained networks onto them."""
