class AppLauncher:
    """Starts Isaac Sim: once in a process, before anything else of it."""

    def __init__(self, headless=False, enable_cameras=False):
        self.app = object()
