"""The Varde protocol core: values and rules, no I/O, no clock, no randomness. Normative text: shared/README.md."""
