"""The look-up of results, described by the user: its calls, its answers, and what they prove. Pure."""
