# For fingers that type make: every target is a command of ./run, which see.
COMMANDS := demo test check bench soak docs package setup lock help

.PHONY: $(COMMANDS) sim
$(COMMANDS):
	@./run $@

# make sim SEED=7
sim:
	@./run sim $(SEED)

.DEFAULT_GOAL := help
