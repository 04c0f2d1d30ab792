"""Generated from protos/ by protos/generate.sh; never edited."""
