# Your first program. Open it with Python (Thonny) and press the green arrow.
name = input("What is your name? ")
print(f"Hello, {name}!")

for number in range(1, 6):
    print(number, "times", number, "is", number * number)
