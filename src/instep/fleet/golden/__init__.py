"""Golden answers: asking an application, and comparing what it says with what it said."""
