"""What a sample is: its image, its id, its part and its role.

======================  ==============================================================================
``image_set``           images, as a source delivers them
``mapped``              images in a file, where they would be too many for the memory
``pictures``            fingerprints by which a picture is known again at any size
``copies``              samples that show the same picture
``check``               what every source must deliver
``ids``                 the text file that names samples to be forgotten
``roles``               who is retain, forget, val and test
``table``               tables of samples and class names, as files hold them
``manifest``            the files of a split
======================  ==============================================================================
"""
