"""What serving systems read: Triton's model repositories, KServe's manifests, the image of masktool's own server."""
