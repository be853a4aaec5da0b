"""Keys, certificates, revocations, tokens and signatures."""
