"""What the cluster's owner looks at: one view of it as JSON, as a page and for Prometheus, and who may see it."""
