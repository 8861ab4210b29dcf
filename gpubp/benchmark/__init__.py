"""What ``gpubp bench`` needs: peers in processes of their own, timed in turn, and their results compared."""
