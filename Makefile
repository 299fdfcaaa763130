# Localloop. `make help` lists the targets.
GO ?= go
