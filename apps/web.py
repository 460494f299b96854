"""Serves the web page on this machine: ``python apps/web.py``; ``restorekit web`` is the same with options."""

from restorekit.web.server import serve

if __name__ == "__main__":
    serve(tell=print)
