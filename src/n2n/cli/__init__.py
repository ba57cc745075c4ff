"""The command line: parse, call, print. One file per group of verbs; heavy modules are imported where used."""
