"""Teams of agents as traffic: recorded call graphs, replayed in virtual time, and how many a deployment carries."""
