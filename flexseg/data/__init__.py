"""Domains on disk and what a step draws from them: indices, checked decoding, transforms, keyed draws."""
