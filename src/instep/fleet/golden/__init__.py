"""Golden answers: asking an application, and comparing its answers with earlier ones."""
