"""Generated from proto/ by `just proto`; never edited."""
