"""What the notebooks share. Each module is one room; imports point up this list:

data → understudy → model → checkpoint → train → plots
"""
