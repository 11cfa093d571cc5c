"""Results back: load the recipients of a campaign, poll for their results, write them to a table."""
