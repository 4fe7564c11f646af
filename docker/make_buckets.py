"""Makes the buckets that are named and not there yet; AWS_ENDPOINT_URL and AWS_ credentials say where."""

import argparse

import boto3


def make_buckets(names: list[str]) -> list[str]:
    """Returns the names of those that were made. Raises botocore's errors when the store does not answer or refuses."""
    store = boto3.client("s3")
    there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    missing = [name for name in names if name not in there]
    for name in missing:
        store.create_bucket(Bucket=name)
    return missing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bucket", nargs="+")
    print("made:", *make_buckets(parser.parse_args().bucket) or ["nothing, all are there"])
