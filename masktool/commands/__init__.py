"""One subcommand per module: a click command named ``command``, imported by ``masktool.cli`` when it is called."""
