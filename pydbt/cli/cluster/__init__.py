"""The resource agent of Pacemaker: a volume whose role on each node the cluster manager chooses."""
