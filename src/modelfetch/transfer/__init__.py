"""Transfer engine: verified ranges of any source, in parallel onto the disk or in order through a bounded window.

range_reader.py    range reads pinned to one object version, with retries
download.py        objects as files, in parallel parts
part_file.py       one file while parts arrive: writes, CRCs, resuming
inorder_hasher.py  digests in byte order while parts arrive in any order
readahead.py       one object in order, for an archive
read_object.py     a small object in memory
adaptive_pool.py   number of threads by measured throughput
"""
