"""The destination's volume: locate, stage, publish and record a model, without touching foreign files.

Imports no other room: callers stage files and call `publish`; a crash at any step leaves a whole model or no receipt.

    destination.py       path of a model, and the receipt already published at the path
    staging.py           locked staging area on the same file system; table of its files on disk
    staged_tree.py       staged files reached by descriptors; inodes compared before publishing
    resume_journal.py    blocks already on disk, for the next run to resume
    ownership.py         owned paths and foreign files; conflicts
    publish.py           staged model into place, receipt last, with rollback
    file_transaction.py  moves and removals of single files that can be rolled back
    receipt.py           the JSON receipt beside a published model
    filesystem.py        error texts, free space, mounts, fsync
"""
