"""What a campaign's tries leave for one another. Knows neither HTTP nor how anything is sent."""
