raise ValueError("bad config\nsecond line")
