"""How long one photograph takes until its answer has settled, with an older version of masktool and with this one."""
