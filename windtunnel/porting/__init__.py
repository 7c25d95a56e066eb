"""What ties a codebase to one vendor, and the edit that frees it. Reads source text; runs and imports nothing."""
