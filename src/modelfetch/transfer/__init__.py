"""Transfer: move bytes from every source, in parallel parts onto the disk or in order through a bounded window.

download.py        files in parallel parts
readahead.py       an object in order, read several parts ahead
range_reader.py    range reads pinned to one object version
read_object.py     an object that fits into memory
part_file.py       a file while its bytes arrive; resumable
inorder_hasher.py  digests in file order while parts arrive in any order
adaptive_pool.py   threads, added while throughput grows
"""
