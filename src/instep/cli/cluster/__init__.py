"""Commands about nodes: beginning, joining, partners, certificates, configuration, balancers."""
