"""Makes the named buckets unless they exist. AWS_ENDPOINT_URL and the AWS_ credentials give the object store."""

import argparse

import boto3


def make_buckets(names: list[str]) -> list[str]:
    """Makes missing buckets and returns their names. Raises botocore's errors if the object store does not answer."""
    store = boto3.client("s3")
    there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    missing = [name for name in names if name not in there]
    for name in missing:
        store.create_bucket(Bucket=name)
    return missing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bucket", nargs="+")
    print("made:", *make_buckets(parser.parse_args().bucket) or ["nothing, all exist"])
