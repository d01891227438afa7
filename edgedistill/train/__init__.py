"""Training: one loop for finetune, distill and prune, in one file an idea.

pace        how long and how fast to train: settings, schedule; pure
batches     rows of several arrays folders as one, and the order in which they are read
objective   the losses of a recipe as one
recipe      recipes/*.toml into one record; pure
compact     embedding tables of only the rows that the data use
weights     model folders read and written
signals     what losses read of a model, cached or live
outputs     a model's outputs over rows: validation, and the soft labels
checkpoint  what a killed run goes on from
running     what changes while training runs
simulate    int8 arithmetic while a model trains
importance  what a model's units are worth, for pruning
loop        the loop
parallel    the same loop in several processes
host        what this host computes fastest
"""
