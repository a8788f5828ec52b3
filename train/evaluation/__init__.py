"""How good the models are: the report's protocol and the nested one."""
