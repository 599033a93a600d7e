"""Training: experiments as data, the loop that runs one, and what a run leaves behind."""
