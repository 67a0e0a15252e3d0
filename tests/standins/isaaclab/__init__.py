"""As Isaac Lab 2.3 documents itself; its tasks are in `isaaclab_tasks`."""
