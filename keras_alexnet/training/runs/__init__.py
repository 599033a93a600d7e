"""The folders of runs: written, read, compared, drawn, and shown as a page.

Reading and comparing import no framework.
"""
