"""The same training job given to other open simulators: one module each, run in a process of its own."""
