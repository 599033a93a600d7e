"""What a data set holds: a pass over its images, and what is there twice."""
