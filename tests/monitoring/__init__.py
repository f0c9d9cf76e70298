"""The alert rules and the Grafana dashboard, against promtool and against a real Prometheus."""
