"""What every room builds on: errors, files, Git, parameters, choices.

======================  ==============================================================================
``errors``              the exceptions that reach a user as one line
``files``               files that appear whole or not at all, their digests, the lock on a folder
``git``                 Git, called as a command
``params``              the model of ``params.yaml``
``plugins``             rooms of choices: one file a choice, found by its name
======================  ==============================================================================
"""
